"""The same federated job as other systems' documentation has one write it; see `bench.federation`.

Nothing here uses fedaccord's own training, so that a peer is measured as its users would run it.
"""
