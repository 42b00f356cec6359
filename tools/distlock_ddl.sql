-- The tables of tools/distlock and of the row that counts as a voice of a set (docs/distlock.md). Run it again at any time: what is there stays.
--
--     psql "host=LOCKSERVER dbname=postgres user=postgres" -f distlock_ddl.sql
--
-- It may run over tables of an older distlock: columns are added, nothing is changed.

create table if not exists distlock (
  lockname text primary key,
  owner text not null default '',
  ts timestamptz not null default now(),
  expired_time interval not null default '0'
);

-- The voice. Nothing here ends by time, and nobody may change or restore it by hand.
alter table distlock add column if not exists identity text not null default '';
alter table distlock add column if not exists members text not null default '';
alter table distlock add column if not exists promised_round bigint not null default 0;
alter table distlock add column if not exists promised_node text collate "C" not null default '';
alter table distlock add column if not exists at_round bigint not null default 0;
alter table distlock add column if not exists at_node text collate "C" not null default '';
alter table distlock add column if not exists at_count bigint not null default 0;
alter table distlock add column if not exists alone text not null default '';

comment on column distlock.identity is 'tells this row from one of the same name that was made anew; empty: no voice of a set';
comment on column distlock.members is 'the set whose voice it is';
comment on column distlock.promised_round is 'the ballot (round, node) below which nothing is answered or stored';
comment on column distlock.at_round is 'the number (round, node, count) of the newest statement about going alone';
comment on column distlock.alone is 'who goes on alone by that statement; empty: nobody';

create table if not exists distlock_history (id bigserial primary key);
alter table distlock_history add column if not exists lockname text;
alter table distlock_history add column if not exists owner text;
alter table distlock_history add column if not exists ts timestamptz default now();
alter table distlock_history add column if not exists promised text;
alter table distlock_history add column if not exists alone text;

create or replace function distlock_remember() returns trigger language plpgsql as $$
begin
  insert into distlock_history (lockname, owner, ts, promised, alone)
  values (new.lockname, new.owner, clock_timestamp(), new.promised_round || '.' || new.promised_node, new.alone);
  return null;
end $$;

do $$
begin
  if not exists (select from pg_trigger where tgrelid = 'distlock'::regclass and tgname = 'distlock_remember') then
    create trigger distlock_remember after update on distlock for each row
      when ((old.owner, old.promised_round, old.promised_node, old.alone) is distinct from (new.owner, new.promised_round, new.promised_node, new.alone))
      execute function distlock_remember();
  end if;
end $$;
