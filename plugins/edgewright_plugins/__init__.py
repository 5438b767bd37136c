"""The loaders and compression methods that come with the engine."""
