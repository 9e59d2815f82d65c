"""What makes a raw download a data set: slices, groups, membership, audit."""
