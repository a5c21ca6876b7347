"""What processes share: memfd regions with counters, record rings, the flow table and the media streams.

Every layout here starts with the same header (`region.HEADER`) and carries a version; a process
that maps another version refuses. Writers and readers of each part are named in its module.
"""
