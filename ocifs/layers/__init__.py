"""Turns layers into file trees, and reads the content of their files.

    service    the interface for the tree: layers, trees, reads
    trees      merged trees of lists of layers; merge/ contains the rules
    reading    the content of files; spans/ contains checkpoints and decompression
    indexes    the index of each layer; indexing/ contains the pass over a layer
    toc        lazy formats: tables of contents that replace the pass
    tar        headers and entries of tars
    index      the entries of a layer, packed and encoded

The room uses blobs and caches only through the Protocols of ocifs.content.
"""
