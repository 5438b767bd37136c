"""The main job, step by step: transform, export, race, judge, package."""
