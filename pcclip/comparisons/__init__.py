"""Comparisons: pairs of captioned images, a sentence on how they differ, and which sentences are kept."""
