-- After a restore from a backup, ids of later changes must be above those in sluice.control.
GRANT SELECT, UPDATE ON SEQUENCE control.outbox_id_seq TO sluice_control_system;
