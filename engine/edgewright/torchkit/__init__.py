"""Training torch modules and reading their structure, for methods that need either. Imported inside functions only."""
