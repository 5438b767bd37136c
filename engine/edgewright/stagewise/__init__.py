"""Lets methods that rewrite one graph work on chains: each stage is a model of its own to them.

What reaches a stage is its data, and the metric it is judged by is that of the whole chain (`part`); rows are taken
through stages in `rows`; `apply` goes from stage to stage and puts the chain together again.
"""
