"""Pictures of what a model does: what its feature maps answer to, its codes, its progress."""

__all__: list[str] = []
