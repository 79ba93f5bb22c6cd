"""What a model must beat: outputs that need no model, taken from training examples alone."""
