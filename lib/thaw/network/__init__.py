"""The pre-trained networks: how they are built, where they are cut, and which layers train."""
