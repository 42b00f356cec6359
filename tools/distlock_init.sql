-- Make a lock, or free it: psql -v lockname=NAME -f distlock_init.sql
-- What the row is as a voice of a set (identity, promise, alone) stays as it is, whatever happens here.

insert into distlock (lockname, owner, ts, expired_time) values (:'lockname', '', now(), interval '0')
on conflict (lockname) do update set owner = '', ts = now(), expired_time = interval '0';
