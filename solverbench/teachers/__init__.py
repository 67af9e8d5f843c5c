"""Teachers: pre-trained models, their conditions, files and catalogue."""
