"""The trained network in its user's hands: made when a study ends, and used on new photos.

Above the report: which configuration to deliver is what the report recommends.
"""
