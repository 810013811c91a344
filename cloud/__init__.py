"""Everything of Fleetline that runs centrally."""
