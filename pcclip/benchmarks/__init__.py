"""Public sets that models are scored on: registry.py loads them by name, a folder for each family."""
