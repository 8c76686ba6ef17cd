"""What the package ships so that a first report needs no download."""
