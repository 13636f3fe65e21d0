"""What a comparison tries: text as users write it, read into an experiment."""
