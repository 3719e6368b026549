"""Finetuning: named losses, a loop for texts against image vectors that stand still, and one for both towers."""
