"""Training in phases, on activations of the frozen part that are computed once."""
