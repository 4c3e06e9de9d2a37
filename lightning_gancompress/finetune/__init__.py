"""Fine-tuning of the small networks."""
