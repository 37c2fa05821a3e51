"""What the plant asks for by itself: sensors and schedules, all off until someone turns them on.

`decision` decides and knows nothing of Dagster, `standing` looks at outputs and runs, `sensors` tells Dagster both.
"""
