"""What only a GPU shows. `pytest tests/gpu` skips without one; --device cpu tries the tests."""
