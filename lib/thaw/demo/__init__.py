"""Photos and weights that the package ships, so that a first report needs no download."""
