"""The one pass over a whole layer: fetch ahead, decompress, hash and list its entries."""
