"""A profile's experiments as a graph of jobs: what is run, checked, shared and measured."""
