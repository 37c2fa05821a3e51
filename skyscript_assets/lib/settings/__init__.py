"""The settings of a profile: pydantic models of its YAML files, and the one function that reads them."""
