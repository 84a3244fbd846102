//! What the destination of a sync has been told, row by row.
