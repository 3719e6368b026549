"""Evaluation: tasks give per-item predictions, statistics give values with intervals, the stage writes the tables."""
