"""pha4pgsql: PostgreSQL high availability on Pacemaker with read load balancing by LVS."""

VERSION = "0.1.0"
