"""Random sequences of transitions, and what holds after every one of them."""
