"""Media to pictures: images, video clips and PDF pages, and the coordinates of regions in them."""
