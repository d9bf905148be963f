"""What the tests share. Nothing here but `runners` imports TensorFlow at import time."""
