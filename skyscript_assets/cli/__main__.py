"""`python -m skyscript_assets.cli` is `skyscript`."""

from skyscript_assets.cli import main

main()
