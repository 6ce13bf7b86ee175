"""A trained network and all that it needs, as a folder that runs without this package."""
