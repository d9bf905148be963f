"""What the tests share. Nothing here imports TensorFlow at import time."""
