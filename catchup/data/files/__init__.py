"""Files of images: found, counted, decoded, kept in memory or streamed, and unpacked from
archives.
"""
