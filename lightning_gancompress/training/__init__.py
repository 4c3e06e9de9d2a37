"""What all phases of training share."""
