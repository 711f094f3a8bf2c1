"""Everything between an Item and its embedding; the only layer that touches the model libraries."""
