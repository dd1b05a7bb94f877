"""Conformance checks for built-in parts and for those of plugins, to be called from a test.

Each check raises AssertionError with a message that says what is wrong. For example:

```python
from pairmatch.testing import check_backbone

def test_my_backbone():
    check_backbone(MyBackbone(size=64))
```
"""

from pairmatch.testing.backbones import check_backbone, example_items
from pairmatch.testing.heads import check_head
from pairmatch.testing.learners import check_learner
from pairmatch.testing.losses import check_loss
from pairmatch.testing.metadata import check_metadata_generator
from pairmatch.testing.poolers import check_pooler
from pairmatch.testing.rerankers import check_reranker

__all__ = [
    "check_backbone",
    "check_head",
    "check_learner",
    "check_loss",
    "check_metadata_generator",
    "check_pooler",
    "check_reranker",
    "example_items",
]
