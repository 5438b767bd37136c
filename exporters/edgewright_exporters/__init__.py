"""The exporters and report renderers that come with the engine."""
