"""The instruments that come with the engine: one module each, listed in the plugin."""
