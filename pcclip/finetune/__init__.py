"""Finetuning: named losses and one loop for every objective."""
