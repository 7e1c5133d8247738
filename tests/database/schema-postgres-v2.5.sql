CREATE TABLE "scheduler" (
  "id" bigserial PRIMARY KEY,
  "created_at" timestamptz,
  "updated_at" timestamptz,
  "is_del" bigint,
  "config" text,
  "host_name" varchar(256) NOT NULL,
  "idc" varchar(1024),
  "location" varchar(1024),
  "ip" varchar(256) NOT NULL,
  "port" integer NOT NULL,
  "state" varchar(256) DEFAULT 'inactive',
  "features" text,
  "last_keep_alive_at" timestamptz,
  "scheduler_cluster_id" bigint NOT NULL
);
CREATE UNIQUE INDEX "uk_scheduler" ON "scheduler" ("host_name", "ip", "scheduler_cluster_id");
