"""Search folders of any size: resumable, alone or on a Ray cluster.

``__main__`` is the command line; ``inputs`` lists the images, ``folder`` keeps the state of the run
on disk, ``shards`` searches a part, ``cluster`` spreads the parts over Ray, and ``formats`` writes
the results.
"""
