"""Measures of human alignment. Names are loaded when first used, so that importing this takes no time."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
