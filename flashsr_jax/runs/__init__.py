"""What a training run leaves in its folder, and how it is read again."""
