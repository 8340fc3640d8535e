"""What the program's exit tells a script."""

# It ran, and what it found asks for attention: an alarm rings, an update was refused.
NOTICED = 3
FAILED, MISUSED, INTERRUPTED = 1, 2, 130
