"""Pictures drawn here, and the small models trained on them: an experiment that needs nothing from outside."""
