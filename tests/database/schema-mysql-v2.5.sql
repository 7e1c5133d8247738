CREATE TABLE `scheduler` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `created_at` datetime(3) DEFAULT NULL,
  `updated_at` datetime(3) DEFAULT NULL,
  `is_del` bigint unsigned DEFAULT NULL,
  `config` longtext,
  `host_name` varchar(256) NOT NULL,
  `idc` varchar(1024) DEFAULT NULL,
  `location` varchar(1024) DEFAULT NULL,
  `ip` varchar(256) NOT NULL,
  `port` int NOT NULL,
  `state` varchar(256) DEFAULT 'inactive',
  `features` longtext,
  `last_keep_alive_at` datetime(3) DEFAULT NULL,
  `scheduler_cluster_id` bigint unsigned NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `uk_scheduler` (`host_name`, `ip`, `scheduler_cluster_id`)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_general_ci;
