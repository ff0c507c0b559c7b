"""Examples as the network reads them: token ids, cached vectors of frozen layers, tags, masks."""
