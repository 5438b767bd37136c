"""The device profiles, predictors and connections that come with the engine."""
